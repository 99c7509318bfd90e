//! What a crash leaves: a killed process, a folder copied while the store is open, a torn write-ahead log.

use crate::{
    chain::{NETWORK, blocks, certificate, genesis, key},
    conformance::assert_holds,
    opening::open,
};
use std::{
    io::{BufRead, BufReader},
    num::NonZeroU64,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};
use switchyard_primitives::Block;
use switchyard_store::{Journal, RocksOptions, RocksStore, Store, StoreError};

const CHILD_PATH: &str = "SWITCHYARD_STORE_TEST_PATH";
/// Set for a child whose blocks are kept elsewhere until they are flushed.
const CHILD_FLUSHES: &str = "SWITCHYARD_STORE_TEST_FLUSHES";
const CHAIN: usize = 400;
/// Blocks between two flushes of a store whose journal is elsewhere.
const FLUSH: usize = 4;

fn open_flushing(path: &Path) -> RocksStore {
    let journal = Journal::Elsewhere { flush_every_blocks: NonZeroU64::new(FLUSH as u64).unwrap() };
    RocksStore::open(path, NETWORK, genesis(), RocksOptions { journal, ..RocksOptions::default() }).unwrap()
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "LOCK" {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

/// Checks that the log is a whole prefix of `blocks`, and returns its height.
fn assert_prefix(store: &dyn Store, blocks: &[Block]) -> usize {
    let height = store.tip().0.height as usize;
    assert!(height <= blocks.len());
    for block in &blocks[..height] {
        assert_holds(store, block);
        let found = store.certificate_from(block.header.height).unwrap();
        assert_eq!(found, Some((block.header.height, certificate(block))));
        let first = key(1, &format!("first of {}", block.header.height));
        assert_eq!(store.locate(first).unwrap(), Some((block.header.height, 0)));
    }
    if let Some(missing) = blocks.get(height) {
        assert_eq!(store.header(missing.header.height).unwrap(), None);
        assert_eq!(store.height_of(missing.hash()).unwrap(), None);
        assert_eq!(store.certificate_from(missing.header.height).unwrap(), None);
        assert_eq!(store.locate(key(1, &format!("first of {}", missing.header.height))).unwrap(), None);
    }
    height
}

#[test]
fn a_copy_taken_while_the_store_is_open_holds_every_acknowledged_block() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let blocks = blocks(8);
    for (done, block) in blocks.iter().enumerate() {
        store.append(block, Some(&certificate(block))).unwrap();
        let image = tempfile::tempdir().unwrap();
        copy(dir.path(), image.path());
        assert_eq!(assert_prefix(&open(image.path()).unwrap(), &blocks), done + 1);
    }
}

#[test]
fn with_its_journal_elsewhere_a_copy_ends_with_a_whole_block_at_or_above_the_last_flush_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_flushing(dir.path());
    let blocks = blocks(10);
    for (block, done) in blocks.iter().zip(1..) {
        store.append(block, Some(&certificate(block))).unwrap();
        let image = tempfile::tempdir().unwrap();
        copy(dir.path(), image.path());
        let copy = open_flushing(image.path());
        let held = assert_prefix(&copy, &blocks);
        assert!((done / FLUSH * FLUSH..=done).contains(&held), "{held} of {done}");
        blocks[held..done].iter().for_each(|block| copy.append(block, Some(&certificate(block))).unwrap());
        drop(copy);
        assert_eq!(assert_prefix(&open_flushing(image.path()), &blocks), done, "closing loses nothing");
    }
}

#[test]
fn with_its_journal_elsewhere_what_was_pruned_stays_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_flushing(dir.path());
    for block in &blocks(7) {
        store.append(block, Some(&certificate(block))).unwrap();
    }
    store.prune(5).unwrap();
    let image = tempfile::tempdir().unwrap();
    copy(dir.path(), image.path());
    let copy = open_flushing(image.path());
    assert_eq!((copy.earliest(), copy.tip().0.height), (5, 7));
}

#[test]
fn a_log_torn_at_any_byte_ends_with_a_whole_block_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let blocks = blocks(6);
    for block in &blocks {
        store.append(block, Some(&certificate(block))).unwrap();
    }
    let is_log = |p: &std::path::PathBuf| p.extension().is_some_and(|e| e == "log");
    let wal = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().path()).find(is_log).unwrap();
    let len = std::fs::metadata(&wal).unwrap().len();
    let mut heights = Vec::new();
    for cut in (0..=len).step_by(409) {
        let image = tempfile::tempdir().unwrap();
        copy(dir.path(), image.path());
        let torn = image.path().join(wal.file_name().unwrap());
        std::fs::File::options().write(true).open(torn).unwrap().set_len(cut).unwrap();
        let store = open(image.path()).unwrap();
        let height = assert_prefix(&store, &blocks);
        blocks[height..].iter().for_each(|block| store.append(block, Some(&certificate(block))).unwrap());
        drop(store);
        assert_eq!(assert_prefix(&open(image.path()).unwrap(), &blocks), blocks.len());
        heights.push(height);
    }
    assert!(heights.is_sorted());
    assert_eq!((heights.first(), heights.last()), (Some(&0), Some(&5)), "some cut leaves each number of blocks");
}

/// Not a test by itself: the other process of the tests below. It appends the standard chain and says each height once
/// it is acknowledged, up to the first failure.
#[test]
fn child_process() {
    let Some(path) = std::env::var_os(CHILD_PATH) else { return };
    let flushes = std::env::var_os(CHILD_FLUSHES).is_some();
    let store = if flushes { open_flushing(Path::new(&path)) } else { open(Path::new(&path)).unwrap() };
    println!("\ntip {}", store.tip().0.height);
    for block in blocks(CHAIN).iter().skip(store.tip().0.height as usize) {
        match store.append(block, Some(&certificate(block))) {
            Ok(()) => println!("\ntip {}", block.header.height),
            Err(StoreError::Database(_)) => return println!("\nfailed"),
            Err(other) => panic!("{other}"),
        }
    }
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

struct Process(Child, BufReader<ChildStdout>);

impl Process {
    fn start(path: &Path) -> Self {
        Self::start_with(Command::new(std::env::current_exe().unwrap()), path)
    }

    /// A process that may not write files longer than this: for it, the disk is full.
    fn start_limited(path: &Path, kib: u32) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", 2 * kib);
        shell.args(["-c", &script, "sh"]).arg(std::env::current_exe().unwrap());
        Self::start_with(shell, path)
    }

    fn start_with(mut command: Command, path: &Path) -> Self {
        let mut child = command
            .args(["durability::child_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD_PATH, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self(child, lines)
    }

    /// The last height that it acknowledges before it fails; none if it does not fail.
    fn height_at_failure(mut self) -> Option<usize> {
        let mut last = None;
        for line in (&mut self.1).lines().map(Result::unwrap) {
            match line.strip_prefix("tip ") {
                Some(height) => last = Some(height.parse().unwrap()),
                None if line == "failed" => {
                    self.0.wait().unwrap();
                    return last;
                }
                None => {}
            }
            if last == Some(CHAIN) {
                self.kill(0);
                return None;
            }
        }
        None
    }

    /// The next height that it acknowledges.
    fn height(&mut self) -> Option<usize> {
        (&mut self.1).lines().find_map(|line| line.unwrap().strip_prefix("tip ").map(|h| h.parse().unwrap()))
    }

    /// SIGKILL; the last height that it acknowledged.
    fn kill(mut self, mut last: usize) -> usize {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        while let Some(height) = self.height() {
            last = height;
        }
        last
    }
}

#[test]
fn a_killed_process_leaves_every_block_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks(CHAIN);
    let mut before = 0;
    for kill_after in [0, 1, 7, 30] {
        let mut process = Process::start(dir.path());
        let mut last = process.height().unwrap();
        assert!(last >= before, "it goes on from where the last one was killed");
        for _ in 0..kill_after {
            last = process.height().unwrap_or(last);
        }
        let acknowledged = process.kill(last);
        let held = assert_prefix(&open(dir.path()).unwrap(), &blocks);
        assert!(held >= acknowledged, "{acknowledged} were acknowledged, {held} are there");
        before = held;
    }
}

#[test]
fn with_its_journal_elsewhere_a_killed_process_leaves_a_whole_log_from_the_last_flush_on() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks(CHAIN);
    for kill_after in [0, 1, 7, 30] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(CHILD_FLUSHES, "1");
        let mut process = Process::start_with(command, dir.path());
        let mut last = process.height().unwrap();
        for _ in 0..kill_after {
            last = process.height().unwrap_or(last);
        }
        let acknowledged = process.kill(last);
        let held = assert_prefix(&open_flushing(dir.path()), &blocks);
        assert!(held >= acknowledged / FLUSH * FLUSH, "{acknowledged} were acknowledged, {held} are there");
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_every_block_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks(CHAIN);
    let acknowledged = Process::start_limited(dir.path(), 128).height_at_failure().unwrap();
    assert!((1..CHAIN).contains(&acknowledged), "{acknowledged}");
    let store = open(dir.path()).unwrap();
    let held = assert_prefix(&store, &blocks);
    assert!(held >= acknowledged, "{acknowledged} were acknowledged, {held} are there");
    blocks[held..].iter().for_each(|block| store.append(block, Some(&certificate(block))).unwrap());
    assert_eq!(assert_prefix(&store, &blocks), CHAIN);
}

#[test]
fn a_second_process_is_refused_while_the_first_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path());
    process.height().unwrap();
    let refused = open(dir.path());
    assert!(matches!(refused, Err(StoreError::InUse { .. })), "{refused:?}");
    process.kill(0);
    assert_eq!(open(dir.path()).unwrap().header(0).unwrap(), Some(genesis()));
}
