//! Reloads under load: `reload-load [CLIENTS [RELOADS]]`, 1000 and 10 without. Ends with 0 when nothing is missing; `ulimit -n` must
//! allow twice as many sockets.
#![expect(clippy::print_stdout, reason = "its output is for a reader")]

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| {
        let given = arguments.next().and_then(|text| text.parse().ok());
        given.unwrap_or(default)
    };
    let (clients, reloads) = (number(1000), number(10));
    println!("{:#?}", motemq_tests::reload_load::run(clients, reloads));
}
