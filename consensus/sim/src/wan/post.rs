//! Messages over a wide area: on their way for exactly so long as the places are apart, and what is large on lines that carry
//! only so much.
//!
//! A message is handed on by reference: a block that goes to ninety-nine others is there once. So this takes the place of the
//! simulated network where nothing is lost and nobody crashes; the quotas are the real ones.

use super::one_way;
use crate::{
    directory::{Directory, Members},
    network::Channel,
};
use commonware_actor::{Feedback, Unreliable};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{LimitedSender, Message, Receiver, Recipients, UnlimitedSender, utils::limited};
use commonware_runtime::{Clock as _, IoBuf, IoBufs, Spawner as _, Supervisor as _, deterministic};
use parking_lot::Mutex;
use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, SystemTime},
};
use switchyard_consensus_network::{CHANNELS, Closed, Network};
use tokio::sync::{Notify, mpsc};

/// Sends on one channel, within its quota.
#[derive(Clone, Debug)]
pub(super) struct Sender(limited::LimitedSender<deterministic::Context, Outbound, Members>);

impl LimitedSender for Sender {
    type PublicKey = PublicKey;
    type Checked<'a> = limited::CheckedSender<'a, Outbound>;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<Self::Checked<'_>, SystemTime> {
        self.0.check(recipients)
    }
}

/// The channels of a validator.
pub(super) type Channels = Network<Sender, Inbox, Members>;

/// Everything that is on its way.
pub(super) struct Post {
    directory: Arc<Directory>,
    members: Vec<Members>,
    /// What a line carries, each way.
    bytes_per_second: u64,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    letters: BinaryHeap<Letter>,
    sent: u64,
    /// From when on each validator's line is free, out and in.
    out: Vec<SystemTime>,
    back: Vec<SystemTime>,
    inboxes: HashMap<(usize, Channel), mpsc::UnboundedSender<Message<PublicKey>>>,
    /// Bytes that each validator has sent on its line.
    carried: Vec<u64>,
}

/// A message for one recipient.
struct Letter {
    /// When something happens to it next.
    at: SystemTime,
    number: u64,
    from: usize,
    to: usize,
    channel: Channel,
    message: IoBuf,
    /// Whether the recipient's line has still to carry it.
    large: bool,
}

impl Ord for Letter {
    /// The heap gives out the greatest: the earliest, and of those the one that was sent first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Letter {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Letter {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Letter {}

/// Where a validator listens.
pub(super) fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], u16::try_from(place).unwrap_or(u16::MAX - 1) + 1))
}

/// How long a line takes for so many bytes.
fn takes(bytes: usize, bytes_per_second: u64) -> Duration {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / bytes_per_second.max(1))
}

impl Post {
    /// A post between these, whose lines carry so much each way; runs until the runtime ends.
    pub(super) fn start(
        context: &deterministic::Context,
        directory: Arc<Directory>,
        bytes_per_second: u64,
    ) -> Arc<Self> {
        let located: Vec<_> = directory.keys().iter().cloned().enumerate().map(|(i, key)| (key, address(i))).collect();
        // All of them first: who opens its channels is connected to everyone.
        let members = (0..located.len()).map(|me| directory.join(me, address(me), &located)).collect();
        let free = vec![context.current(); located.len()];
        let state = State {
            letters: BinaryHeap::new(),
            sent: 0,
            out: free.clone(),
            back: free,
            inboxes: HashMap::new(),
            carried: vec![0; directory.keys().len()],
        };
        let (state, changed) = (Mutex::new(state), Notify::new());
        let post = Arc::new(Self { directory, members, bytes_per_second, state, changed });
        let running = post.clone();
        context.child("post").spawn(move |context| async move { running.carry(context).await });
        post
    }

    /// Opens a validator's channels.
    pub(super) fn join(self: &Arc<Self>, context: &deterministic::Context, me: usize) -> Channels {
        let members = self.members[me].clone();
        let open = |channel: Channel| {
            let kind = &CHANNELS[channel as usize];
            let (way, queue) = mpsc::unbounded_channel();
            self.state.lock().inboxes.insert((me, channel), way);
            let outbound = Outbound { post: self.clone(), clock: Arc::new(context.child("clock")), me, channel };
            let sender = limited::LimitedSender::new(outbound, kind.quota, context.child(kind.name), members.clone());
            let burst = kind.quota.burst_size().get() as usize * self.members.len();
            (Sender(sender), Inbox { queue, capacity: NonZeroUsize::new(burst).unwrap_or(NonZeroUsize::MIN) })
        };
        Network {
            votes: open(Channel::Votes),
            certificates: open(Channel::Certificates),
            resolver: open(Channel::Resolver),
            blocks: open(Channel::Blocks),
            backfill: open(Channel::Backfill),
            transactions: open(Channel::Transactions),
            gossip: None,
            connected: members.count(),
            peers: members,
            address: address(me),
            task: commonware_runtime::Handle::from_future(std::future::pending()),
        }
    }

    /// Bytes that a validator's line has carried outwards.
    pub(super) fn carried(&self, validator: usize) -> u64 {
        self.state.lock().carried[validator]
    }

    fn send(&self, now: SystemTime, me: usize, channel: Channel, recipients: &[usize], message: &IoBuf) {
        // Blocks, shards, and what is fetched of them later.
        let large = matches!(channel, Channel::Blocks | Channel::Backfill);
        let mut state = self.state.lock();
        let mut gone = now;
        if large {
            // All recipients have an equal share of the line, and the next message waits for all of them.
            let bytes = message.len() * recipients.len();
            gone = state.out[me].max(now) + takes(bytes, self.bytes_per_second);
            state.out[me] = gone;
            state.carried[me] += bytes as u64;
        }
        for to in recipients {
            state.sent += 1;
            let (number, message) = (state.sent, message.clone());
            state.letters.push(Letter {
                at: gone + one_way(me, *to),
                number,
                from: me,
                to: *to,
                channel,
                message,
                large,
            });
        }
        drop(state);
        self.changed.notify_one();
    }

    async fn carry(&self, context: deterministic::Context) {
        loop {
            let next = self.state.lock().letters.peek().map(|letter| letter.at);
            match next {
                Some(at) if at <= context.current() => self.deliver(context.current()),
                Some(at) => tokio::select! {
                    biased;
                    () = context.sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// Does what is due.
    fn deliver(&self, now: SystemTime) {
        let mut state = self.state.lock();
        while let Some(mut letter) =
            state.letters.peek().is_some_and(|l| l.at <= now).then(|| state.letters.pop()).flatten()
        {
            if std::mem::take(&mut letter.large) {
                // Its last byte has come this far. It has been coming in for as long as the recipient's line takes for it,
                // unless that was busy with others.
                let free = state.back[letter.to] + takes(letter.message.len(), self.bytes_per_second);
                state.back[letter.to] = free.max(letter.at);
                if free > letter.at {
                    letter.at = free;
                    state.letters.push(letter);
                    continue;
                }
            }
            let from = self.directory.keys()[letter.from].clone();
            if let Some(way) = state.inboxes.get(&(letter.to, letter.channel)) {
                // Whoever has ended hears nothing.
                let _ = way.send((from, letter.message));
            }
        }
    }
}

/// One validator's way into the post.
#[derive(Clone)]
pub(super) struct Outbound {
    post: Arc<Post>,
    clock: Arc<deterministic::Context>,
    me: usize,
    channel: Channel,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl UnlimitedSender for Outbound {
    type PublicKey = PublicKey;

    fn send(
        &mut self,
        recipients: Recipients<PublicKey>,
        message: impl Into<IoBufs> + Send,
        _: bool,
    ) -> Unreliable<Feedback> {
        let recipients: Vec<PublicKey> = match recipients {
            Recipients::All => self.post.directory.keys().to_vec(),
            Recipients::Some(keys) => keys,
            Recipients::One(key) => vec![key],
        };
        let places = recipients.iter().filter_map(|key| self.post.directory.place(key));
        let places: Vec<usize> = places.filter(|place| *place != self.me).collect();
        self.post.send(self.clock.current(), self.me, self.channel, &places, &message.into().coalesce());
        Unreliable::new(Feedback::Ok)
    }
}

/// Receives on one channel.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: mpsc::UnboundedReceiver<Message<PublicKey>>,
    capacity: NonZeroUsize,
}

impl Receiver for Inbox {
    type Error = Closed;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, Closed> {
        self.queue.recv().await.ok_or(Closed)
    }

    fn capacity(&self) -> NonZeroUsize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
    use commonware_p2p::Sender as _;
    use commonware_runtime::Runner as _;

    /// When each of `sends` (by whom, to whom, bytes), all at once, is there, in milliseconds; places 0 to 9 are in regions of
    /// their own, and a line carries a byte a microsecond.
    fn arrivals(
        channel: fn(&mut Channels) -> &mut (Sender, Inbox),
        sends: &'static [(usize, &[usize], usize)],
    ) -> Vec<(usize, u64)> {
        let runtime = deterministic::Config::new().with_cycle(Duration::from_micros(1));
        deterministic::Runner::new(runtime).start(|context| async move {
            let keys: Vec<PublicKey> = (0..10).map(|i| PrivateKey::from_seed(i).public_key()).collect();
            let post = Post::start(&context, Directory::new(keys.clone()), 1_000_000);
            let mut joined: Vec<Channels> = (0..10).map(|me| post.join(&context, me)).collect();
            let began = context.current();
            for (from, to, bytes) in sends {
                let to = to.iter().map(|place| keys[*place].clone()).collect();
                channel(&mut joined[*from]).0.send(Recipients::Some(to), vec![0; *bytes], false);
            }
            let mut arrived = Vec::new();
            let expected: usize = sends.iter().map(|(_, to, _)| to.len()).sum();
            while arrived.len() < expected {
                context.sleep(Duration::from_micros(100)).await;
                for (place, network) in joined.iter_mut().enumerate() {
                    while channel(network).1.queue.try_recv().is_ok() {
                        let since = context.current().duration_since(began).unwrap();
                        arrived.push((place, u64::try_from(since.as_millis()).unwrap()));
                    }
                }
            }
            arrived
        })
    }

    #[test]
    fn a_vote_takes_as_long_as_the_regions_are_apart() {
        // Dallas to Toronto and Tokyo.
        assert_eq!(arrivals(|n| &mut n.votes, &[(0, &[1, 8], 500_000)]), [(1, 17), (8, 71)]);
    }

    #[test]
    fn a_block_takes_the_senders_line_besides_and_the_next_one_waits() {
        // Two recipients share the line; then the second block.
        let found = arrivals(|n| &mut n.blocks, &[(0, &[1, 8], 50_000), (0, &[1], 30_000)]);
        assert_eq!(found, [(1, 117), (1, 147), (8, 171)]);
    }

    #[test]
    fn what_comes_from_several_shares_the_recipients_line() {
        // Both would be there after 67 and 96 ms. The recipient's line takes 50 ms for each, so the second is there later.
        let found = arrivals(|n| &mut n.blocks, &[(0, &[1], 50_000), (3, &[1], 50_000)]);
        assert_eq!(found, [(1, 67), (1, 117)]);
    }
}
