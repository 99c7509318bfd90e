//! `switchyard bench`: load and speed.

fn main() -> std::process::ExitCode {
    switchyard_benches::cli::main().into()
}
