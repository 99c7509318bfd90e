//! `docs/integrate.md`: what it shows is in the repository, and does what it says.

use alloy::signers::local::PrivateKeySigner;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use switchyard_testnet_local::{accounts::ACCOUNTS, find_binary};

#[path = "../../../../bridge/client/examples/swap.rs"]
#[allow(dead_code, unreachable_pub, reason = "a program of its own")]
mod swap;

/// A block of code: its language, the file that it is, and its text.
struct Block {
    language: String,
    file: Option<String>,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn blocks() -> Vec<Block> {
    let guide = fs::read_to_string(root().join("docs/integrate.md")).unwrap();
    let mut found = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        let Some(opening) = line.strip_prefix("```") else { continue };
        let (language, file) = opening.split_once(' ').map_or((opening, None), |(l, file)| (l, Some(file.to_owned())));
        let text = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        found.push(Block { language: language.to_owned(), file, text });
    }
    found
}

#[test]
fn the_programs_that_the_guide_shows_are_those_that_tests_run() {
    let programs: Vec<_> = blocks().into_iter().filter(|b| matches!(b.language.as_str(), "rust" | "js")).collect();
    assert_eq!(programs.len(), 3);
    for Block { file, text, .. } in programs {
        let file = file.unwrap();
        assert_eq!(text, fs::read_to_string(root().join(&file)).unwrap(), "docs/integrate.md does not show {file}");
    }
}

/// Does what the guide's shell blocks say, in one shell, and its first example, on a running network. The second one needs a pool
/// (`testnet/kit`).
pub(crate) fn follow(grpc: &str, genesis: &Path) {
    let folder = tempfile::tempdir().unwrap();
    for Block { file, text, .. } in blocks().into_iter().filter(|block| block.language == "json") {
        fs::write(folder.path().join(file.unwrap()), text).unwrap();
    }
    let script: String = blocks().into_iter().filter(|b| b.language == "sh").map(|b| b.text).collect();
    let programs = find_binary("switchyard").unwrap();
    let path = format!("{}:{}", programs.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-euxc", &script]).current_dir(&folder).env("PATH", path).env("SWITCHYARD_GRPC", grpc);
    let done = shell.env("GENESIS", genesis).output().unwrap();
    let (said, commands) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}{commands}");
    for told in ["final 0x", "complete", "delivered", "settled"] {
        assert!(said.contains(told), "nothing is {told}: {said}{commands}");
    }

    let [alice, bob] = [3, 4].map(|i| PrivateKeySigner::from_bytes(&ACCOUNTS[i].private_key).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(swap::swap(grpc, &alice, &bob)).unwrap());
}
