//! libFuzzer's entry to [`fuzz::Target::Connection`]; built without libFuzzer, it replays files or mutates the corpus.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::Target::Connection.run(input));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    fuzz::driver::main(fuzz::Target::Connection)
}
