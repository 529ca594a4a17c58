//! libFuzzer's entry to [`fuzz::Target::Answer`]; built without libFuzzer, it replays files or mutates the corpus.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::Target::Answer.run(input));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    fuzz::driver::main(fuzz::Target::Answer)
}
