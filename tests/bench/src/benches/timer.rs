//! The timing wheel: instructions to arm or cancel a timer beside 1,000 armed ones and beside 1,000,000. Valgrind's
//! callgrind counts them, in this binary started again, so that the figures do not depend on who else uses the CPUs.
//! There is no kernel in it: the fewer armed timers are the reference.

use std::hint::black_box;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tcp_proto::bench::Wheel;

use crate::harness::Options;
use crate::report::{Good, Report};

/// Armed timers of the reference and of the crowd.
const ARMED: [u32; 2] = [1_000, 1_000_000];
/// Operations that are counted.
const OPERATIONS: u32 = 100_000;

/// Runs it: `timer`.
pub fn run(_options: &Options) -> Result<Vec<Report>> {
    let [few, many] = ARMED.map(|armed| instructions(armed).map(|count| vec![count]));
    let workload = "arming or cancelling a timer beside 1,000,000 armed ones, against beside 1,000 (in the kernel's place); \
                    instructions, by callgrind";
    Ok(vec![Report::new("timer", (workload, "instructions"), (&few?, &many?), (Good::AtMost, 1.3))?])
}

/// Instructions of an operation beside `armed` timers.
fn instructions(armed: u32) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*arm_and_cancel*"])
        .arg(std::env::current_exe().context("can't tell where this binary is")?)
        .args(["wheel", &armed.to_string(), &OPERATIONS.to_string()])
        .output()
        .context("can't run valgrind: install it with `apt-get install valgrind`")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {}", said.trim());
    let collected = said.lines().find_map(|line| line.split("Collected :").nth(1));
    let Some(count) = collected.and_then(|count| count.trim().parse::<f64>().ok()).filter(|count| *count > 0.0) else {
        bail!("valgrind does not say how many instructions it counted: {}", said.trim());
    };
    println!("  {armed} armed: {:.1} instructions an operation", count / f64::from(OPERATIONS));
    Ok(count / f64::from(OPERATIONS))
}

/// What valgrind watches: a wheel with `armed` timers, and `operations` on it.
pub fn drive(armed: u32, operations: u32) {
    arm_and_cancel(&mut Wheel::armed(armed), operations);
}

/// Arms another timer of a connection, or cancels it, `operations` times.
#[inline(never)]
fn arm_and_cancel(wheel: &mut Wheel, operations: u32) {
    for operation in 0..operations {
        black_box(&mut *wheel).operate(black_box(operation));
    }
}
