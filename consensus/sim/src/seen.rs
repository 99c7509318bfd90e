//! How much of everything runs have seen.

/// How much there was to check, and what went wrong meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Validators' lives that were cut off: crashes, and ends by a failing disk.
    pub crashes: u64,
    /// Times that one direction of a link was cut.
    pub cuts: u64,
    /// Validators that lie.
    pub liars: usize,
    /// Height of the log.
    pub blocks: u64,
    /// Different certificates.
    pub certificates: usize,
    /// Transactions that were accepted.
    pub accepted: usize,
    /// Transactions in the log.
    pub ordered: usize,
    /// Rollup blocks derived.
    pub derived: usize,
    /// Rollup blocks certified by operators.
    pub certified: usize,
    /// Bundles in the log that were committed, and aborted.
    pub bundles: (usize, usize),
    /// Legs that were settled.
    pub settled: usize,
    /// Messages that were delivered, and that were refunded.
    pub messages: (usize, usize),
    /// Deposits that rollups' blocks have brought.
    pub deposited: usize,
    /// Slots voted in.
    pub votes: usize,
    /// Seats found to have contradicted themselves.
    pub caught: usize,
    /// Operators proven to have attested two things, and validators to have signed two votes.
    pub accused: (usize, usize),
    /// Records of the system rollup in the log.
    pub records: usize,
    /// Committees that are not the one before them.
    pub committees: usize,
    /// The newest epoch whose seats a light client knows.
    pub followed: u64,
    /// Simulated time.
    pub time_ms: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.liars += other.liars;
        self.blocks += other.blocks;
        self.certificates += other.certificates;
        self.accepted += other.accepted;
        self.ordered += other.ordered;
        self.derived += other.derived;
        self.certified += other.certified;
        self.bundles.0 += other.bundles.0;
        self.bundles.1 += other.bundles.1;
        self.settled += other.settled;
        self.deposited += other.deposited;
        self.messages.0 += other.messages.0;
        self.messages.1 += other.messages.1;
        self.votes += other.votes;
        self.caught += other.caught;
        self.accused.0 += other.accused.0;
        self.accused.1 += other.accused.1;
        self.records += other.records;
        self.committees += other.committees;
        self.followed += other.followed;
        self.time_ms += other.time_ms;
    }
}
