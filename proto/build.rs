//! Generates the gRPC code from `proto/`. protox parses the files, so no protoc is needed.

use protox::prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 5] = ["types", "sequencer", "blocks", "bridge", "status"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = FILES.map(|name| format!("proto/switchyard/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("switchyard.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").use_arc_self(true).compile_fds(descriptors)?;
    // Apart: a hub's reflection does not tell of a service that it does not have.
    let signer = protox::compile(["proto/switchyard/signer/v1/signer.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").use_arc_self(true).compile_fds(signer)?;
    Ok(())
}
