//! The table of `ballast ingress dump --l4`.

use std::collections::BTreeMap;

use comfy_table::Cell;
use serde::Deserialize;

use super::Style;
use super::style::Tone;
use super::tables::{finish, table};

/// A service of the L4 balancer in the kernel, as far as people are shown it.
#[derive(Debug, Clone, Deserialize)]
pub struct DumpedL4 {
    /// Its name.
    pub service: String,
    /// Address or net.
    pub vip: String,
    /// None: any.
    pub port: Option<u16>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// How packets get to reals.
    pub mode: String,
    /// Where packets come in.
    pub interface: String,
    /// Where the program runs.
    pub xdp: String,
    /// Packets by what became of them.
    pub verdicts: Vec<(String, u64)>,
    /// Its reals.
    pub reals: Vec<DumpedReal>,
}

/// A real.
#[derive(Debug, Clone, Deserialize)]
pub struct DumpedReal {
    /// Its address.
    pub address: String,
    /// Such as `active`.
    pub state: String,
    /// Its weight.
    pub weight: u32,
    /// Slots of the ring that are its.
    pub slots: usize,
    /// Flows that it has.
    pub flows: Option<u64>,
    /// Packets forwarded to it.
    pub packets: u64,
    /// Flows that began.
    pub new_flows: u64,
    /// Resets sent in its name.
    pub resets: u64,
}

/// Returns the table: a row for each real, then what became of the packets of each service. With
/// the one of a second before, packets and new flows are those of that second.
pub fn l4(services: &[DumpedL4], before: Option<&[DumpedL4]>, style: Style) -> String {
    let (packets, flows) = match before {
        Some(_) => ("PACKETS/s", "NEW FLOWS/s"),
        None => ("PACKETS", "NEW FLOWS"),
    };
    let place = ["SERVICE", "REACHED AT", "MODE", "REAL", "STATE"];
    let figures = ["WEIGHT", "SLOTS", "FLOWS", packets, flows, "RESETS"];
    let header = [&place[..], &figures[..]].concat();
    let known = before.unwrap_or_default().iter().flat_map(|service| {
        let reals = service.reals.iter();
        reals.map(move |real| {
            (
                (&service.service, &real.address),
                (real.packets, real.new_flows),
            )
        })
    });
    let known: BTreeMap<_, _> = known.collect();
    let mut table = table(&header, style);
    for service in services {
        let port = service
            .port
            .map_or_else(|| "*".to_owned(), |port| port.to_string());
        let place = format!(
            "{}/{} {port} on {}",
            service.protocol, service.vip, service.interface
        );
        let mode = format!("{}, XDP {}", service.mode, service.xdp);
        for (at, real) in service.reals.iter().enumerate() {
            let once = |text: &str| Cell::new(if at == 0 { text } else { "" });
            let tone = match real.state.as_str() {
                "active" => Tone::Good,
                "dead" => Tone::Bad,
                _ => Tone::Warn,
            };
            let last = known.get(&(&service.service, &real.address));
            let (packets, flows) = last.copied().unwrap_or_default();
            table.add_row(vec![
                once(&service.service),
                once(&place),
                once(&mode),
                Cell::new(&real.address),
                style.cell(real.state.clone(), tone),
                Cell::new(real.weight),
                Cell::new(real.slots),
                Cell::new(
                    real.flows
                        .map_or_else(String::new, |flows| flows.to_string()),
                ),
                Cell::new(real.packets.saturating_sub(packets)),
                Cell::new(real.new_flows.saturating_sub(flows)),
                Cell::new(real.resets),
            ]);
        }
    }
    verdicts(finish(&table), services)
}

/// Adds what became of the packets of each service.
fn verdicts(mut text: String, services: &[DumpedL4]) -> String {
    for service in services {
        let some = service.verdicts.iter().filter(|(_, count)| *count > 0);
        let some: Vec<String> = some
            .map(|(verdict, count)| format!("{verdict} {count}"))
            .collect();
        text = format!(
            "{}\n{}: {}",
            text.trim_end(),
            service.service,
            some.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(packets: u64) -> DumpedL4 {
        DumpedL4 {
            service: "web".to_owned(),
            vip: "10.0.0.100".to_owned(),
            port: Some(80),
            protocol: "tcp".to_owned(),
            mode: "dsr".to_owned(),
            interface: "eth0".to_owned(),
            xdp: "native".to_owned(),
            verdicts: vec![("forwarded".to_owned(), packets), ("blocked".to_owned(), 0)],
            reals: vec![DumpedReal {
                address: "10.0.0.11:80".to_owned(),
                state: "active".to_owned(),
                weight: 1,
                slots: 7,
                flows: Some(3),
                packets,
                new_flows: 2,
                resets: 0,
            }],
        }
    }

    #[test]
    fn rows_name_reals_and_verdicts_and_a_second_look_shows_rates() {
        let text = l4(&[service(40)], None, Style::PLAIN);
        assert!(text.contains("tcp/10.0.0.100 80 on eth0"), "{text}");
        assert!(text.ends_with("web: forwarded 40"), "{text}");
        let text = l4(&[service(40)], Some(&[service(10)]), Style::PLAIN);
        assert!(
            text.contains("PACKETS/s") && text.contains(" 30 "),
            "{text}"
        );
    }
}
