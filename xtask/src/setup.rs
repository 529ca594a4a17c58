//! `cargo xtask setup`: checks what a build, the demo and the tests need, and installs what is missing.
//!
//! Every other command calls [`ensure`], which only looks at files and prints nothing when nothing is missing.
//! Leaves out: rustup itself and a C linker, without which this program could not have been built, and
//! distributions without apt, whose users are told the names of the programs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{find, read, succeed};
use crate::root;

/// Works without a system LLVM: it opens the libLLVM of the toolchain that runs it. 0.11 and later want LLVM 23.
const BPF_LINKER: &str = "0.10.4";
/// Major version of the libLLVM that this bpf-linker can use.
const LLVM: &str = "22";
/// The nightly that is installed when the machine's own has another LLVM, or there is none.
const DATED_NIGHTLY: &str = "nightly-2026-05-20";
/// Toolchains that may build the XDP program, in order of preference.
const NIGHTLIES: [&str; 2] = ["nightly", DATED_NIGHTLY];
/// Names the toolchain that builds the XDP program to the daemon's build script; unset: `nightly`.
const TOOLCHAIN_VARIABLE: &str = "XTCP_EBPF_TOOLCHAIN";

/// Programs and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 10] = [
    ("bpftool", "bpftool"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("ss", "iproute2"),
    ("curl", "curl"),
    ("nmap", "nmap"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("python3", "python3"),
];

/// Something that is needed: its name, how to see whether it is there, how to get it.
struct Need {
    name: String,
    state: Result<String, Missing>,
}

/// Something that is missing, by how to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Missing {
    /// A package of the distribution.
    Package { program: &'static str, package: &'static str },
    /// Components of the stable toolchain that runs this program.
    Components,
    /// A nightly that can build the XDP program.
    Nightly,
    /// `rust-src` of a nightly that is there.
    RustSource { toolchain: &'static str },
    /// bpf-linker in the right version.
    BpfLinker,
}

/// Checks everything, says what is there, installs the rest.
pub fn run() -> Result<ExitCode> {
    let needs = needs()?;
    for need in &needs {
        match &need.state {
            Ok(where_) => println!("present   {} ({where_})", need.name),
            Err(_) => println!("missing   {}", need.name),
        }
    }
    let missing: Vec<Missing> = needs.into_iter().filter_map(|need| need.state.err()).collect();
    install(&missing)?;
    println!("{}", if missing.is_empty() { "Everything is there; nothing to do." } else { "Done." });
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing; prints nothing when nothing is.
pub fn ensure() -> Result<()> {
    let missing: Vec<Missing> = needs()?.into_iter().filter_map(|need| need.state.err()).collect();
    install(&missing)
}

/// Tells a build which toolchain is to build the XDP program, when it is not the usual one.
pub fn choose_toolchain(build: &mut Command) -> Result<()> {
    let toolchains = toolchains()?;
    let usable = NIGHTLIES.into_iter().find(|name| nightly_of(&toolchains, name).is_ok());
    if let Some(name) = usable
        && name != NIGHTLIES[0]
    {
        build.env(TOOLCHAIN_VARIABLE, name);
    }
    Ok(())
}

fn needs() -> Result<Vec<Need>> {
    let toolchains = toolchains()?;
    let mut needs = vec![
        Need { name: "rustfmt and clippy".to_owned(), state: components(&toolchains) },
        Need { name: format!("nightly toolchain with LLVM {LLVM} and rust-src"), state: nightly(&toolchains) },
        Need { name: format!("bpf-linker {BPF_LINKER}"), state: bpf_linker() },
    ];
    for (program, package) in PROGRAMS {
        let state = find(program).map(show).ok_or(Missing::Package { program, package });
        needs.push(Need { name: program.to_owned(), state });
    }
    Ok(needs)
}

fn show(path: PathBuf) -> String {
    path.display().to_string()
}

/// Where rustup keeps its toolchains.
fn toolchains() -> Result<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")));
    let toolchains = home.context("neither RUSTUP_HOME nor HOME is set")?.join("toolchains");
    ensure!(
        toolchains.is_dir(),
        "{} is not there: xtcp builds with rustup's toolchains, see https://rustup.rs",
        toolchains.display()
    );
    Ok(toolchains)
}

/// Cargo runs this program with the name of its own toolchain in the environment.
fn components(toolchains: &Path) -> Result<String, Missing> {
    let Some(own) = std::env::var_os("RUSTUP_TOOLCHAIN") else { return Ok("not rustup's".to_owned()) };
    let programs = toolchains.join(own).join("bin");
    let there = ["cargo-fmt", "cargo-clippy"].iter().all(|name| programs.join(name).is_file());
    if there { Ok(show(programs)) } else { Err(Missing::Components) }
}

/// The first usable nightly; else the least that is missing.
fn nightly(toolchains: &Path) -> Result<String, Missing> {
    let found = NIGHTLIES.map(|name| nightly_of(toolchains, name));
    let usable = found.iter().find_map(|state| state.as_ref().ok());
    let repairable = found.iter().find_map(|state| match state {
        Err(missing @ Missing::RustSource { .. }) => Some(missing),
        _ => None,
    });
    match (usable, repairable) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(missing)) => Err(missing.clone()),
        (None, None) => Err(Missing::Nightly),
    }
}

fn nightly_of(toolchains: &Path, name: &'static str) -> Result<String, Missing> {
    let directory = toolchains.join(format!("{name}-{}", host()));
    let libraries = std::fs::read_dir(directory.join("lib")).map_err(|_| Missing::Nightly)?;
    let llvm = format!("libLLVM.so.{LLVM}.");
    let right_llvm = libraries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&llvm));
    if !right_llvm {
        return Err(Missing::Nightly);
    }
    let source = directory.join("lib/rustlib/src/rust/library/core");
    if source.is_dir() { Ok(show(directory)) } else { Err(Missing::RustSource { toolchain: name }) }
}

/// The host's target triple as rustup names it.
fn host() -> String {
    format!("{}-unknown-linux-{}", std::env::consts::ARCH, if cfg!(target_env = "musl") { "musl" } else { "gnu" })
}

fn bpf_linker() -> Result<String, Missing> {
    let path = find("bpf-linker").ok_or(Missing::BpfLinker)?;
    let version = read(Command::new(&path).arg("--version")).map_err(|_| Missing::BpfLinker)?;
    if version.split_whitespace().any(|word| word == BPF_LINKER) { Ok(show(path)) } else { Err(Missing::BpfLinker) }
}

fn install(missing: &[Missing]) -> Result<()> {
    let packages = missing.iter().filter_map(|missing| match missing {
        Missing::Package { program, package } => Some((*program, *package)),
        _ => None,
    });
    install_packages(packages.collect())?;
    missing.iter().try_for_each(install_one)
}

fn install_one(missing: &Missing) -> Result<()> {
    match missing {
        Missing::Package { .. } => Ok(()),
        Missing::Components => rustup(&["component", "add", "rustfmt", "clippy"]),
        Missing::RustSource { toolchain } => rustup(&["component", "add", "rust-src", "--toolchain", toolchain]),
        Missing::Nightly => {
            let what = [DATED_NIGHTLY, "--profile", "minimal", "--component", "rust-src"];
            // rustup itself is the user's business.
            rustup(&[&["toolchain", "install", "--no-self-update"], &what[..]].concat())
        }
        Missing::BpfLinker => {
            rustup(&["run", "stable", "cargo", "install", "bpf-linker", "--version", BPF_LINKER, "--locked"])
        }
    }
}

fn rustup(arguments: &[&str]) -> Result<()> {
    println!("installing: rustup {}", arguments.join(" "));
    succeed(Command::new("rustup").args(arguments)).context("rustup could not install it")
}

fn install_packages(mut missing: Vec<(&str, &str)>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let programs = missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(" ");
    if find("apt-get").is_none() {
        bail!("these programs are missing, and there is no apt-get to install them: {programs}");
    }
    root::ensure_available(&format!("installing {programs}"))?;
    missing.sort_by_key(|(_, package)| *package);
    missing.dedup_by_key(|(_, package)| *package);
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    println!("installing packages: {}", packages.join(" "));
    // The lists of a fresh machine are empty or old; elsewhere reading them anew would only take time.
    if apt_get(&["install", "--yes", "--no-install-recommends"], &packages).is_err() {
        apt_get(&["update"], &[])?;
        apt_get(&["install", "--yes", "--no-install-recommends"], &packages)?;
    }
    Ok(())
}

fn apt_get(arguments: &[&str], packages: &[&str]) -> Result<()> {
    let mut command = root::command("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]).args(arguments).args(packages);
    succeed(command.stdin(Stdio::null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of toolchains with one nightly of an LLVM version.
    fn toolchains(name: &str, llvm: &str, with_source: bool) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let nightly = directory.path().join(format!("{name}-{}", host()));
        std::fs::create_dir_all(nightly.join("lib")).unwrap();
        std::fs::write(nightly.join(format!("lib/libLLVM.so.{llvm}-rust-1.97.0-nightly")), "").unwrap();
        if with_source {
            std::fs::create_dir_all(nightly.join("lib/rustlib/src/rust/library/core")).unwrap();
        }
        directory
    }

    #[test]
    fn a_nightly_with_the_right_llvm_and_rust_src_is_used() {
        let directory = toolchains("nightly", "22.1", true);
        assert!(nightly(directory.path()).is_ok());
    }

    #[test]
    fn a_nightly_that_lacks_only_rust_src_is_given_it() {
        let directory = toolchains("nightly", "22.1", false);
        assert_eq!(nightly(directory.path()), Err(Missing::RustSource { toolchain: "nightly" }));
    }

    #[test]
    fn a_nightly_with_another_llvm_is_left_alone_and_the_dated_one_wanted() {
        let directory = toolchains("nightly", "23.0", true);
        assert_eq!(nightly(directory.path()), Err(Missing::Nightly));
    }

    #[test]
    fn the_dated_nightly_serves_when_the_machine_has_no_other() {
        let directory = toolchains(DATED_NIGHTLY, "22.1", true);
        assert!(nightly(directory.path()).is_ok());
    }
}
