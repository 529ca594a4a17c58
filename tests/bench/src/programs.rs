//! The package's own XDP programs: loading them, attaching the client's, running the generator's.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use aya::maps::{Array, MapData, PerCpuArray, ProgramArray, XskMap};
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, TestRunResult, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use bench_ebpf::{REPLY_KINDS, Replies, TEMPLATE_WORDS, Template};

use crate::frame;

static CLIENT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench-client"));
static GENERATOR: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench-generator"));
static LOOKUP: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench-lookup"));

/// What the client's end of the wire does with what comes in; the server's end may have `Discard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEnd {
    /// Counts and drops what comes back to generated sources.
    Count,
    /// Gives it to the AF_XDP socket of its queue.
    Steer,
    /// Leaves everything to the kernel.
    Pass,
    /// Drops everything.
    Discard,
}

/// The program of such an end. It is detached on drop.
#[derive(Debug)]
pub struct ClientProgram {
    ebpf: Ebpf,
}

impl ClientProgram {
    /// Loads the program and attaches it, in the driver, to an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn attach(end: ClientEnd, interface: &str) -> Result<ClientProgram> {
        let mut ebpf = Ebpf::load(CLIENT).context("can't load the client's program")?;
        let name = match end {
            ClientEnd::Count => "count",
            ClientEnd::Steer => "steer",
            ClientEnd::Pass => "pass",
            ClientEnd::Discard => "discard",
        };
        let program = load(&mut ebpf, name)?;
        program.attach(interface, XdpMode::Driver).with_context(|| format!("can't attach `{name}` to {interface}"))?;
        Ok(ClientProgram { ebpf })
    }

    /// What has come back so far.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn replies(&self) -> Result<Replies> {
        let map = self.ebpf.map("REPLIES").context("no map REPLIES")?;
        let map = PerCpuArray::<&MapData, [u64; REPLY_KINDS]>::try_from(map)?;
        let per_cpu = map.get(&0, 0)?;
        let sum = |kind: usize| per_cpu.iter().map(|counts| counts[kind]).sum();
        Ok(Replies { syn_ack: sum(0), rst: sum(1), other: sum(2) })
    }

    /// Gives frames of queue 0 to a socket.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn register(&mut self, socket: impl AsFd) -> Result<()> {
        let map = self.ebpf.map_mut("SOCKETS").context("no map SOCKETS")?;
        let mut map = XskMap::<&mut MapData>::try_from(map)?;
        map.set(0, socket.as_fd(), 0).context("can't register the client's socket")
    }
}

/// The generator's program, loaded and attached nowhere.
#[derive(Debug)]
pub struct GeneratorProgram {
    ebpf: Ebpf,
}

impl GeneratorProgram {
    /// Loads it with a template.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(template: &Template) -> Result<GeneratorProgram> {
        let mut ebpf = Ebpf::load(GENERATOR).context("can't load the generator's program")?;
        load(&mut ebpf, "generator")?;
        let mut program = GeneratorProgram { ebpf };
        program.set(template)?;
        Ok(program)
    }

    /// Sets the template of the frames to come.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set(&mut self, template: &Template) -> Result<()> {
        let map = self.ebpf.map_mut("TEMPLATE").context("no map TEMPLATE")?;
        let mut map = Array::<&mut MapData, [u64; TEMPLATE_WORDS]>::try_from(map)?;
        map.set(0, frame::words(template), 0).context("can't write the template")
    }

    /// Sends frames to come at a rate per second; `None`: as fast as it goes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pace(&mut self, rate: Option<f64>) -> Result<()> {
        let map = self.ebpf.map_mut("PACE").context("no map PACE")?;
        let mut map = Array::<&mut MapData, [u64; 2]>::try_from(map)?;
        let interval = rate.map_or(0, |rate| (1e9 / rate) as u64);
        map.set(0, [0, interval], 0).context("can't write the rate")
    }

    /// Hands every frame to `next` instead of sending it.
    ///
    /// # Errors
    /// When the two programs can't be chained.
    pub fn chain(&mut self, next: &Xdp) -> Result<()> {
        let map = self.ebpf.map_mut("NEXT").context("no map NEXT")?;
        let mut map = ProgramArray::<&mut MapData>::try_from(map)?;
        map.set(0, next.fd()?, 0).context("can't chain the program to be measured")
    }

    /// Sends `count` frames, as if they had come in on interface `index` and were sent out there, `batch` at once, with one
    /// system call. The kernel takes some 10 ms to begin and end it.
    ///
    /// # Errors
    /// When the kernel refuses (Linux 5.18 has live frames).
    pub fn send_live(&mut self, template: &Template, index: u32, count: u32, batch: u32) -> Result<()> {
        let frame = &template.bytes[..template.length as usize];
        let context = context(frame.len() as u32, index);
        let options = || TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(batch.min(count)),
            ..TestRunOptions::new()
        };
        run(program(&mut self.ebpf, "generator")?, options).map(drop)
    }

    /// Nanoseconds per frame, the chained program's included, over `count` frames that go nowhere.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn time(&mut self, template: &Template, count: u32) -> Result<TestRunResult> {
        let frame = &template.bytes[..template.length as usize];
        let options = || TestRunOptions { data_in: Some(frame), repeat: count, ..TestRunOptions::new() };
        run(program(&mut self.ebpf, "generator")?, options)
    }
}

/// The reference programs with a table of so many entries.
///
/// # Errors
/// When the kernel refuses them.
pub fn load_references(entries: u32) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("TABLE", entries);
    let mut ebpf = loader.load(LOOKUP).context("can't load the reference programs")?;
    load(&mut ebpf, "nothing")?;
    load(&mut ebpf, "bare_lookup")?;
    Ok(ebpf)
}

/// A program of a loaded object by its name.
///
/// # Errors
/// When there is none.
pub fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    program.try_into().with_context(|| format!("{name} is no XDP program"))
}

/// Runs a program by BPF_PROG_TEST_RUN, again when a signal interrupts it.
///
/// # Errors
/// When the kernel refuses.
pub fn run<'a>(program: &Xdp, options: impl Fn() -> TestRunOptions<'a>) -> Result<TestRunResult> {
    loop {
        match program.test_run(options()) {
            Ok(result) => return Ok(result),
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("BPF_PROG_TEST_RUN failed"),
        }
    }
}

fn load<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = program(ebpf, name)?;
    program.load().with_context(|| format!("the kernel refuses the program `{name}`"))?;
    Ok(program)
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn context(length: u32, index: u32) -> [u8; 24] {
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&length.to_ne_bytes());
    context[12..16].copy_from_slice(&index.to_ne_bytes());
    context
}
