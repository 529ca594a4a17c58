//! The daemon's pinned maps as an operator sees them: dumped, and changed, by `bpftool`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Pinned maps of one daemon.
#[derive(Clone, Debug)]
pub struct Maps {
    directory: PathBuf,
}

impl Maps {
    /// The maps pinned in a directory.
    #[must_use]
    pub fn at(directory: &Path) -> Maps {
        Maps { directory: directory.to_owned() }
    }

    /// Entries of CONNECTIONS with their fields by name.
    ///
    /// # Panics
    /// When bpftool fails, or prints no field names (no BTF).
    #[must_use]
    pub fn connections(&self) -> Vec<Entry> {
        self.dump("CONNECTIONS").into_iter().map(|row| Entry { row }).collect()
    }

    /// The entry of the connection between `local` and `remote`.
    #[must_use]
    pub fn connection(&self, local: SocketAddr, remote: SocketAddr) -> Option<Entry> {
        self.connections().into_iter().find(|entry| entry.local() == local && entry.remote() == remote)
    }

    /// A field of COUNTERS, summed over the CPUs.
    ///
    /// # Panics
    /// When bpftool fails or there is no such field.
    #[must_use]
    pub fn counter(&self, field: &str) -> u64 {
        self.per_cpu_counters().iter().map(|cpu| number(cpu, field)).sum()
    }

    /// COUNTERS as they are, one object per CPU.
    ///
    /// # Panics
    /// When bpftool fails.
    #[must_use]
    pub fn per_cpu_counters(&self) -> Vec<Value> {
        let rows = self.dump("COUNTERS");
        let [row] = &rows[..] else { panic!("COUNTERS has {} entries, not one", rows.len()) };
        let cpus = row["formatted"]["values"].as_array().unwrap_or_else(|| panic!("not a per-CPU map: {row:#}"));
        cpus.iter().map(|cpu| cpu["value"].clone()).collect()
    }

    /// Deletes an entry of CONNECTIONS.
    ///
    /// # Panics
    /// When bpftool fails.
    pub fn delete_connection(&self, entry: &Entry) {
        let key: Vec<&str> = entry.key_bytes().collect();
        self.bpftool("delete", "CONNECTIONS", &[&["key"], &key[..]].concat());
    }

    /// Writes an entry of CONNECTIONS, byte by byte.
    ///
    /// # Panics
    /// When bpftool fails.
    pub fn put_connection(&self, key: &[u8; 40], value: &[u8; 64]) {
        let words = |name: &str, bytes: &[u8]| {
            std::iter::once(name.to_owned()).chain(bytes.iter().map(u8::to_string)).collect::<Vec<_>>()
        };
        let arguments = [words("key", key), words("value", value)].concat();
        self.bpftool("update", "CONNECTIONS", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// The kernel's id of a map: it stays the same as long as the map itself does.
    ///
    /// # Panics
    /// When bpftool fails.
    #[must_use]
    pub fn id(&self, map: &str) -> u64 {
        let text = self.bpftool("show", map, &[]);
        number(&serde_json::from_str(&text).expect("bpftool prints JSON"), "id")
    }

    /// `bpftool map dump` of a map as a person sees it.
    ///
    /// # Panics
    /// When bpftool fails.
    #[must_use]
    pub fn dump_text(&self, map: &str) -> String {
        let output = Command::new("bpftool").args(["map", "dump", "pinned"]).arg(self.directory.join(map)).output();
        let output = output.expect("bpftool can be run (package bpftool)");
        assert!(output.status.success(), "bpftool map dump of {map} failed: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Every entry of a map, as `bpftool -j` prints it.
    ///
    /// # Panics
    /// When bpftool fails.
    #[must_use]
    pub fn dump(&self, map: &str) -> Vec<Value> {
        let text = self.bpftool("dump", map, &[]);
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{map}: {error} in {text}"));
        // An entry that is deleted during the dump shows up as an error instead of a value.
        rows.into_iter()
            .filter(|row| row.get("value").or(row.get("values")).is_some_and(|v| v.get("error").is_none()))
            .collect()
    }

    fn bpftool(&self, command: &str, map: &str, arguments: &[&str]) -> String {
        let path = self.directory.join(map);
        let mut bpftool = Command::new("bpftool");
        bpftool.args(["-j", "map", command, "pinned"]).arg(&path).args(arguments);
        let output = bpftool.output().expect("bpftool can be run (package bpftool)");
        assert!(output.status.success(), "bpftool map {command} of {} failed: {output:?}", path.display());
        String::from_utf8(output.stdout).expect("bpftool prints UTF-8")
    }
}

/// An entry of CONNECTIONS.
#[derive(Clone, Debug)]
pub struct Entry {
    row: Value,
}

impl Entry {
    /// Name of the state.
    #[must_use]
    pub fn state(&self) -> &str {
        self.field("value", "state").as_str().unwrap_or_else(|| panic!("the state prints no name: {:#}", self.row))
    }

    /// A number of the value.
    #[must_use]
    pub fn number(&self, field: &str) -> u64 {
        number(&self.row["formatted"]["value"], field)
    }

    /// Our end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.end("local_addr", "local_port")
    }

    /// The peer's end.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.end("remote_addr", "remote_port")
    }

    fn end(&self, address: &str, port: &str) -> SocketAddr {
        let bytes = self.field("key", address).as_array().expect("an address is an array of bytes");
        let mut octets = [0; 16];
        assert_eq!(bytes.len(), octets.len(), "an address has 16 bytes: {:#}", self.row);
        for (octet, byte) in octets.iter_mut().zip(bytes) {
            *octet = byte_of(byte);
        }
        let address = Ipv6Addr::from(octets);
        let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
        let port = number(&self.row["formatted"]["key"], port);
        SocketAddr::new(address, u16::try_from(port).expect("a port has 16 bits"))
    }

    fn field(&self, part: &str, field: &str) -> &Value {
        let value = &self.row["formatted"][part][field];
        assert!(!value.is_null(), "bpftool prints no {part} field {field}: {:#}", self.row);
        value
    }

    /// The key as bpftool takes it on its command line: `0x0a` and so on.
    fn key_bytes(&self) -> impl Iterator<Item = &str> {
        let bytes = self.row["key"].as_array().expect("bpftool prints keys as bytes");
        bytes.iter().map(|byte| byte.as_str().expect("bpftool prints bytes as strings"))
    }
}

/// bpftool prints a `u8` of an array as a number or, in some versions, as a string like `0x0a`.
fn byte_of(value: &Value) -> u8 {
    let text = value.as_str().map(|text| u8::from_str_radix(text.trim_start_matches("0x"), 16));
    match (value.as_u64(), text) {
        (Some(number), _) => u8::try_from(number).expect("a byte"),
        (None, Some(Ok(byte))) => byte,
        _ => panic!("{value} is no byte"),
    }
}

fn number(object: &Value, field: &str) -> u64 {
    let value = &object[field];
    value.as_u64().unwrap_or_else(|| panic!("no number {field} in {object:#}"))
}
