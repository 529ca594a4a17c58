//! Tells bpf-linker, which generates the code, that BPF may load unaligned words: packet headers are read
//! as byte arrays, and without this each becomes one load per byte.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        println!("cargo:rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
    }
}
