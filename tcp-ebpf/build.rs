//! Options for bpf-linker, which generates the code; for the programs of the benches, too.

/// Packet headers are read as byte arrays: without unaligned loads each would become one load per byte.
const UNALIGNED_LOADS: &str = "--cpu-features=+allows-misaligned-mem-access";
/// Without this even 40 zero bytes are written by a call of a loop over bytes.
const INLINE_MEMSET: &str = "--disable-expand-memcpy-in-order";

fn main() {
    println!("cargo:rerun-if-env-changed=CARGO_CFG_TARGET_ARCH");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        for argument in [UNALIGNED_LOADS, INLINE_MEMSET] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
    }
}
