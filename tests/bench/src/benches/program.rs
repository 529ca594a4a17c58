//! What the XDP program costs by BPF_PROG_TEST_RUN: a frame that is not for an owned port, and a steered segment with
//! 1,024 and with 1,048,576 connections, each frame another one's.
//!
//! The generator's program writes each frame and tail-calls the one that is measured; what it costs with a program that
//! does nothing is taken off. The reference is one lookup of the same keys in a map of the same shape (`bare_lookup`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use ::tests::net::{SERVER_V4, Wire, WireOptions};
use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, MapData};
use aya::programs::Xdp;
use aya::{Ebpf, TestRunOptions};
use bench_ebpf::{SOURCE_BITS_V4, Template};
use tcp_common::{ConnectionKey, ConnectionValue, State};
use xtcp::afxdp::{XskOptions, XskSocket};
use xtcp::xdp::{LoadOptions, Program, XdpMode, default_pin_path};

use crate::cpu::Meter;
use crate::frame::{self, Ends, Kind};
use crate::harness::{Options, Sample, pick, rounds};
use crate::lab::PORT;
use crate::programs::{GeneratorProgram, load_references, program, run as test_run};
use crate::report::{Good, Report, Summary};

/// Connections, as powers of two.
const FEW: u32 = 10;
const MANY: u32 = 20;
/// A port that nobody owns.
const UNOWNED: u16 = 9;
/// Frames of a measurement.
const FRAMES: u32 = 2_000_000;
/// Entries that are inserted by one call.
const BATCH: usize = 4096;
/// What one frame may cost, ns: not for us; steered, with few connections.
const UNOWNED_BAR: f64 = 30.0;
const STEERED_BAR: f64 = 130.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    Unowned,
    Empty,
    Nothing,
    Lookup(u32),
    Steered(u32),
}

const VARIANTS: [Variant; 7] = [
    Variant::Unowned,
    Variant::Empty,
    Variant::Nothing,
    Variant::Lookup(FEW),
    Variant::Lookup(MANY),
    Variant::Steered(FEW),
    Variant::Steered(MANY),
];

/// Runs it: `program-unowned`, `program-steered` and `program-steered-million`.
pub fn run(options: &Options) -> Result<Vec<Report>> {
    let mut worlds = BTreeMap::new();
    for bits in [FEW, MANY] {
        worlds.insert(bits, World::new(bits).with_context(|| format!("a world of 2^{bits} connections"))?);
    }
    let rounds = rounds(options, &VARIANTS, |variant| {
        let meter = Meter::start(&[])?;
        let ns = measure(&mut worlds, variant)?;
        Ok(Sample { figures: ns, foreign: meter.stop()?.foreign })
    })?;
    let nothing = pick(&rounds, Variant::Nothing, |ns| *ns);
    let unowned = pick(&rounds, Variant::Unowned, |ns| *ns);
    let empty = Summary::of(&pick(&rounds, Variant::Empty, |ns| *ns))?.median;
    let net = |variant| -> Vec<f64> {
        let gross = pick(&rounds, variant, |ns| *ns);
        gross.into_iter().zip(&nothing).map(|(gross, nothing)| gross - nothing).collect()
    };
    let what = |text: &str| (format!("{text}; the reference is one lookup of varied keys among as many entries"), "ns");
    let (few, many) = (net(Variant::Lookup(FEW)), net(Variant::Lookup(MANY)));
    let first =
        format!("a frame to a port that nobody owns, 1,048,576 connections (an empty program takes {empty:.0} ns)");
    let second = "a steered segment, 1,024 connections, varied keys";
    let third = "a steered segment, 1,048,576 connections, varied keys";
    Ok(vec![
        Report::absolute("program-unowned", what(&first), (&many, &unowned), (Good::AtMost, UNOWNED_BAR))?,
        Report::absolute(
            "program-steered",
            what(second),
            (&few, &net(Variant::Steered(FEW))),
            (Good::AtMost, STEERED_BAR),
        )?,
        Report::new(
            "program-steered-million",
            what(third),
            (&many, &net(Variant::Steered(MANY))),
            (Good::AtMost, 1.2),
        )?,
    ])
}

/// ns per frame.
fn measure(worlds: &mut BTreeMap<u32, World>, variant: Variant) -> Result<f64> {
    let bits = match variant {
        Variant::Lookup(bits) | Variant::Steered(bits) => bits,
        Variant::Unowned | Variant::Empty | Variant::Nothing => MANY,
    };
    let world = worlds.get_mut(&bits).context("no such world")?;
    match variant {
        Variant::Unowned => test_unowned(world.product.xdp()?, &world.ends),
        Variant::Empty => test_unowned(program(&mut world.references, "nothing")?, &world.ends),
        Variant::Nothing => world.chained("nothing"),
        Variant::Lookup(_) => world.chained("bare_lookup"),
        Variant::Steered(_) => world.steered(),
    }
}

/// The product's program and the references, with the same entries. Nothing is attached.
struct World {
    product: Program,
    _socket: XskSocket,
    references: Ebpf,
    generator: GeneratorProgram,
    template: Template,
    ends: Ends,
    _wire: Wire,
}

impl World {
    fn new(bits: u32) -> Result<World> {
        let wire = Wire::new(&WireOptions::default())?;
        let listener = SocketAddr::new(SERVER_V4, PORT);
        let ends = Ends { client: wire.client.mac()?, server: wire.server.mac()?, listener };
        let mut template = frame::template(Kind::Ack, &ends);
        let of_source = bits.min(SOURCE_BITS_V4);
        template.source_mask = (1 << of_source) - 1;
        template.port_mask = (1 << (bits - of_source)) - 1;
        let (mut product, socket) = load_product(&wire, 1 << bits)?;
        let mut references = load_references(1 << bits)?;
        fill_product(&mut product, &template, listener)?;
        fill_reference(&mut references, &template)?;
        let generator = GeneratorProgram::load(&template)?;
        Ok(World { product, _socket: socket, references, generator, template, ends, _wire: wire })
    }

    fn chained(&mut self, name: &str) -> Result<f64> {
        self.generator.chain(program(&mut self.references, name)?)?;
        let result = self.generator.time(&self.template, FRAMES)?;
        // XDP_PASS: the key was found.
        ensure!(result.return_value == 2, "`{name}` returned {}", result.return_value);
        Ok(result.duration.as_nanos() as f64)
    }

    fn steered(&mut self) -> Result<f64> {
        self.generator.chain(self.product.xdp()?)?;
        let result = self.generator.time(&self.template, FRAMES)?;
        // XDP_REDIRECT.
        ensure!(result.return_value == 4, "a connection's segment was not steered: {}", result.return_value);
        Ok(result.duration.as_nanos() as f64)
    }
}

/// Of a frame to a port that nobody owns.
fn test_unowned(program: &Xdp, ends: &Ends) -> Result<f64> {
    let mut listener = ends.listener;
    listener.set_port(UNOWNED);
    let template = frame::template(Kind::Ack, &Ends { listener, ..*ends });
    let mut memory = [0; bench_ebpf::MAX_FRAME];
    let length = frame::fill(&mut memory, &template, &template.vary([1, 2, 3]));
    let options = || TestRunOptions { data_in: Some(&memory[..length]), repeat: FRAMES, ..TestRunOptions::new() };
    let result = test_run(program, options)?;
    ensure!(result.return_value == 2, "a frame that is not for us did not pass: {}", result.return_value);
    Ok(result.duration.as_nanos() as f64)
}

fn load_product(wire: &Wire, entries: u32) -> Result<(Program, XskSocket)> {
    let end = &wire.server;
    let index = end.interface_index()?;
    let mut product = Program::open(&LoadOptions {
        interface_index: index,
        interface_name: end.interface().to_owned(),
        pin_path: default_pin_path(end.interface()),
        mode: XdpMode::Auto,
        max_connections: entries,
        mac: end.mac()?,
        queues: 1,
        limits_sources: false,
        vlans: Vec::new(),
    })?;
    let socket = end.enter(|| XskSocket::bind(&XskOptions::new(end.interface(), index, 1500, 0)))?;
    product.register_socket(0, socket.as_fd())?;
    product.set_addresses(&[SERVER_V4])?;
    product.set_listeners(&[(SocketAddr::new(SERVER_V4, PORT), tcp_common::layout::ListenerValue::default())])?;
    Ok((product, socket))
}

/// Every source address and port that the template makes.
fn names(template: &Template) -> impl Iterator<Item = (u32, u16)> {
    let Template { source_base, source_mask, port_base, port_mask, .. } = *template;
    (0..=port_mask)
        .flat_map(move |port| (0..=source_mask).map(move |source| (source_base | source, (port_base + port) as u16)))
}

fn fill_product(product: &mut Program, template: &Template, listener: SocketAddr) -> Result<()> {
    let value = ConnectionValue { state: State::ESTABLISHED, ..ConnectionValue::default() };
    let key = |(source, port): (u32, u16)| {
        ConnectionKey::new(listener, SocketAddr::new(IpAddr::from(source.to_be_bytes()), port))
    };
    let entries: Vec<_> = names(template).map(|name| (key(name), value)).collect();
    let (mut table, mut refused) = (product.connections()?, 0);
    for batch in entries.chunks(BATCH) {
        table.insert_batch(batch, |_| refused += 1)?;
    }
    ensure!(refused == 0, "{refused} connections found no room");
    Ok(())
}

fn fill_reference(references: &mut Ebpf, template: &Template) -> Result<()> {
    let map = references.map_mut("TABLE").context("no map TABLE")?;
    let mut map = HashMap::<&mut MapData, [u64; 5], [u64; 8]>::try_from(map)?;
    for (source, port) in names(template) {
        let (source, port) = (u32::from_ne_bytes(source.to_be_bytes()), u16::from_ne_bytes(port.to_be_bytes()));
        map.insert([source.into(), port.into(), 0, 0, 0], [0; 8], 0)?;
    }
    Ok(())
}
