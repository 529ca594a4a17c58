//! Arms and cancels on a timing wheel on which others are armed, to count instructions per operation:
//! `cargo run -p tcp-proto --example wheel --features bench --release -- ARMED OPERATIONS`, under
//! `valgrind --tool=callgrind --toggle-collect='*arm_and_cancel*'`, which counts the operations alone.

use std::hint::black_box;

use tcp_proto::bench::Wheel;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u32>().expect("ARMED and OPERATIONS"));
    let (armed, operations) = (numbers.next().expect("ARMED"), numbers.next().expect("OPERATIONS"));
    let mut wheel = Wheel::armed(armed);
    arm_and_cancel(&mut wheel, operations);
    println!("{operations} times armed and cancelled beside {armed}");
}

/// Arms another timer of a connection, or cancels it, `operations` times.
#[inline(never)]
fn arm_and_cancel(wheel: &mut Wheel, operations: u32) {
    for operation in 0..operations {
        black_box(&mut *wheel).operate(black_box(operation));
    }
}
