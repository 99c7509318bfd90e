//! `switchyard testnet`: a local network of real validator processes.

fn main() -> std::process::ExitCode {
    switchyard_testnet_local::cli::main().into()
}
