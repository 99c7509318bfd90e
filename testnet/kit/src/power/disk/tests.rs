use super::*;
use rand::SeedableRng as _;

fn write(fd: i32, offset: u64, data: &[u8]) -> Op {
    Op::Write { fd, offset, data: bytes::Bytes::copy_from_slice(data) }
}

fn open(fd: i32, path: &str) -> Op {
    Op::Open { fd, create: true, truncate: false, path: path.into() }
}

fn sync(fd: i32, extent: Extent) -> Vec<Op> {
    vec![Op::SyncBegins { fd, id: 1, extent }, Op::SyncEnds { id: 1 }]
}

fn apply(mut disk: Disk, ops: &[Vec<Op>]) -> Disk {
    for op in ops.iter().flatten() {
        disk.apply(op).unwrap();
    }
    disk
}

fn disk(ops: &[Vec<Op>]) -> Disk {
    apply(Disk::new(&Image::default()), ops)
}

/// What many seeds give.
fn images(disk: &Disk, model: Model, keep: Keep) -> Vec<Image> {
    (0..400).map(|seed| disk.cut(model, keep, &mut StdRng::seed_from_u64(seed))).collect()
}

/// The contents of a file that they give.
fn contents(disk: &Disk, model: Model, keep: Keep) -> BTreeSet<Option<Vec<u8>>> {
    images(disk, model, keep).iter().map(|image| image.files.get("a").cloned()).collect()
}

fn some(content: &[u8]) -> Option<Vec<u8>> {
    Some(content.to_vec())
}

#[test]
fn what_was_synced_is_there_and_what_was_not_may_be() {
    let disk = disk(&[vec![open(3, "a"), write(3, 0, b"one")], sync(3, Extent::Whole), vec![write(3, 3, b"two")]]);
    assert_eq!(contents(&disk, Model::Ordered, Keep::Nothing), BTreeSet::from([some(b"one")]));
    assert_eq!(contents(&disk, Model::Ordered, Keep::All), BTreeSet::from([some(b"onetwo")]));
    let either = BTreeSet::from([some(b"one"), some(b"onetwo")]);
    assert_eq!(contents(&disk, Model::Ordered, Keep::Mixed), either, "one sector, whole or not at all");
}

#[test]
fn a_write_that_came_after_a_sync_had_begun_is_not_in_it() {
    let begins = Op::SyncBegins { fd: 3, id: 1, extent: Extent::Data };
    let ops = [open(3, "a"), write(3, 0, b"one"), begins, write(3, 3, b"two"), Op::SyncEnds { id: 1 }];
    assert_eq!(contents(&disk(&[ops.into()]), Model::Ordered, Keep::Nothing), BTreeSet::from([some(b"one")]));
}

#[test]
fn a_sync_that_has_not_ended_says_nothing() {
    let begins = Op::SyncBegins { fd: 3, id: 1, extent: Extent::Whole };
    let disk = disk(&[vec![open(3, "a"), write(3, 0, b"one"), begins]]);
    assert_eq!(contents(&disk, Model::Ordered, Keep::Nothing), BTreeSet::from([None]));
}

#[test]
fn a_sync_that_is_broken_keeps_nothing_or_what_the_one_before_should_have() {
    let broken = |how| {
        let mut disk = Disk::new(&Image::default());
        disk.break_syncs(&Broken { part: "a".into(), how });
        apply(disk, &[vec![open(3, "a"), write(3, 0, b"one")], sync(3, Extent::Whole)])
    };
    assert_eq!(contents(&broken(Lie::Never), Model::Posix, Keep::Nothing), BTreeSet::from([None]));
    let late = apply(broken(Lie::Late), &[vec![write(3, 3, b"two")], sync(3, Extent::Whole)]);
    assert_eq!(contents(&late, Model::Ordered, Keep::Nothing), BTreeSet::from([some(b"one")]));
}

#[test]
fn sectors_of_a_large_write_are_lost_one_by_one() {
    let there = [vec![open(3, "a"), Op::Truncate { fd: 3, len: 2048 }], sync(3, Extent::Whole)].concat();
    let disk = disk(&[there, vec![write(3, 0, &[7; 4 * 512])]]);
    let mut kinds = BTreeSet::new();
    for image in images(&disk, Model::Ordered, Keep::Sectors) {
        let sectors: Vec<_> = image.files["a"].chunks(512).map(<[u8]>::to_vec).collect();
        let torn = sectors.iter().any(|sector| sector.iter().any(|byte| *byte != sector[0]));
        assert!(sectors.len() == 4 && !torn, "torn within a sector");
        kinds.insert(sectors.iter().map(|sector| sector[0] == 7).collect::<Vec<_>>());
    }
    assert_eq!(kinds.len(), 16, "{kinds:?}");
}

#[test]
fn a_prefix_ends_at_a_sector() {
    let disk = disk(&[vec![open(3, "a")], sync(3, Extent::Whole), vec![write(3, 0, &[7; 3 * 512])]]);
    let lens: BTreeSet<usize> =
        images(&disk, Model::Ordered, Keep::Prefix).iter().map(|image| image.files["a"].len()).collect();
    assert_eq!(lens, BTreeSet::from([0, 512, 1024, 1536]));
}

#[test]
fn the_journal_keeps_the_order_of_names_and_posix_does_not() {
    let disk = disk(&[vec![open(3, "a"), open(4, "b"), Op::Rename { from: "a".into(), to: "c".into() }]]);
    let names = |model| -> BTreeSet<String> {
        let images = images(&disk, model, Keep::Mixed);
        images.iter().map(|image| image.files.keys().map(String::as_str).collect()).collect()
    };
    assert_eq!(names(Model::Ordered), ["", "a", "ab", "bc"].map(String::from).into());
    let posix = names(Model::Posix);
    assert!(posix.contains("b") && posix.contains("c"), "{posix:?}");
}

#[test]
fn a_name_is_durable_by_any_sync_on_ext4_and_by_its_folders_alone_in_posix() {
    let ops = [vec![open(3, "a"), open(4, "b"), write(4, 0, b"x")], sync(4, Extent::Data)].concat();
    let kept = |disk: &Disk, model| images(disk, model, Keep::Nothing)[0].files.len();
    let of_a_file = disk(std::slice::from_ref(&ops));
    assert_eq!((kept(&of_a_file, Model::Ordered), kept(&of_a_file, Model::Posix)), (2, 0));
    let folder = Op::Open { fd: 5, create: false, truncate: false, path: String::new() };
    let of_the_folder = disk(&[ops, vec![folder], sync(5, Extent::Whole)]);
    assert_eq!((kept(&of_the_folder, Model::Ordered), kept(&of_the_folder, Model::Posix)), (2, 2));
}

#[test]
fn a_data_sync_of_what_has_no_news_for_the_journal_commits_nothing_else() {
    let first = [vec![open(3, "a"), write(3, 0, b"one")], sync(3, Extent::Whole)].concat();
    let disk = disk(&[first, vec![open(4, "b"), write(3, 0, b"two")], sync(3, Extent::Data)]);
    assert!(!images(&disk, Model::Ordered, Keep::Nothing)[0].files.contains_key("b"));
}

#[test]
fn a_truncation_that_is_lost_takes_what_followed_with_it() {
    let first = [vec![open(3, "a"), write(3, 0, b"first")], sync(3, Extent::Whole)].concat();
    let disk = disk(&[first, vec![Op::Truncate { fd: 3, len: 0 }, write(3, 0, b"2nd")]]);
    let kept = BTreeSet::from([some(b"first"), some(b"2nd"), some(b"")]);
    assert_eq!(contents(&disk, Model::Ordered, Keep::Mixed), kept);
}

#[test]
fn a_write_that_waits_for_itself_makes_its_pages_durable_and_no_others() {
    let ops = vec![open(3, "a"), write(3, 0, &[7; 4096]), write(3, 4096, b"second")];
    let disk = disk(&[ops, sync(3, Extent::Range(4096, 6))]);
    let left = [vec![0; 4096], b"second".to_vec()].concat();
    assert_eq!(contents(&disk, Model::Ordered, Keep::Nothing), BTreeSet::from([Some(left)]));
    assert_eq!(disk.seen().files["a"], [vec![7; 4096], b"second".to_vec()].concat());
}

#[test]
fn a_folder_that_was_there_is_durable() {
    let mut first = Image::default();
    first.folders.extend(["d".to_owned(), "d/e".to_owned()]);
    first.files.insert("d/e/f".into(), b"old".to_vec());
    let disk = Disk::new(&first);
    assert_eq!(disk.seen(), first);
    let disk = apply(disk, &[vec![Op::Unlink { path: "d/e/f".into() }]]);
    assert!(images(&disk, Model::Ordered, Keep::Nothing).iter().all(|image| *image == first));
    assert!(images(&disk, Model::Posix, Keep::All).iter().all(|image| image.files.is_empty()));
}

#[test]
fn what_was_never_made_is_refused() {
    let mut disk = Disk::new(&Image::default());
    let unknown = Op::Open { fd: 3, create: false, truncate: false, path: "a".into() };
    for op in [unknown, write(3, 0, b"x"), Op::Unlink { path: "a".into() }, Op::SyncEnds { id: 9 }] {
        assert!(disk.apply(&op).is_err(), "{op:?}");
    }
}
