//! `x-ballast.placement` and `x-ballast.resources`: the rules that Compose has no words for.

use ballast_model::{Placement, Resources, ServiceAffinity};

use super::field::Field;
use super::finding::Report;
use super::keys;
use crate::args::{ApartArg, DeviceArg, NearArg, ResourceArg, SpreadArg};

/// Reads `x-ballast.placement`.
pub(super) fn placement(placement: &mut Placement, field: &Field<'_>, report: &mut Report) {
    let section = field.section(report, keys::EXTENSION_PLACEMENT);
    if let Some(list) = section.get("affinities") {
        for item in list.items(report) {
            placement.affinities.extend(item.parse(report));
        }
    }
    if let Some(list) = section.get("near") {
        for item in list.items(report) {
            let near: Option<NearArg> = item.parse(report);
            placement.services.extend(near.map(|near| near.0));
        }
    }
    if let Some(list) = section.get("apart") {
        for item in list.items(report) {
            let apart: Option<ApartArg> = item.parse(report);
            placement.services.extend(apart.map(|apart| apart.0));
        }
    }
    if let Some(list) = section.get("spread") {
        placement.spread.clear();
        for item in list.items(report) {
            let rule: Option<SpreadArg> = item.parse(report);
            placement.spread.extend(rule.and_then(|rule| rule.0));
        }
    }
    if let Some(list) = section.get("tolerations") {
        for item in list.items(report) {
            placement.tolerations.extend(item.parse(report));
        }
    }
    set(&mut placement.policy, section.get("policy"), report);
    set(&mut placement.sockets, section.get("sockets"), report);
    set(&mut placement.priority, section.get("priority"), report);
    set(&mut placement.preempts, section.get("preempts"), report);
    let budget = section.get("max_disrupted");
    set(&mut placement.max_disrupted, budget, report);
    set(&mut placement.gang, section.get("gang"), report);
    set(&mut placement.rebalance, section.get("rebalance"), report);
}

/// Reads `x-ballast.resources`.
pub(super) fn resources(resources: &mut Resources, field: &Field<'_>, report: &mut Report) {
    let section = field.section(report, keys::EXTENSION_RESOURCES);
    set(&mut resources.disk, section.get("disk"), report);
    let device = section.get("device").and_then(|f| f.parse(report));
    if let Some(DeviceArg(device)) = device {
        resources.devices = device;
    }
    if let Some(list) = section.get("custom") {
        for item in list.items(report) {
            if let Some(ResourceArg { name, units }) = item.parse(report) {
                resources.custom.insert(name, units);
            }
        }
    }
}

fn set<T>(value: &mut T, field: Option<&Field<'_>>, report: &mut Report)
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if let Some(read) = field.and_then(|field| field.parse(report)) {
        *value = read;
    }
}

/// Makes rules that name a service of the same file name what it is called in the cluster.
pub(super) fn rename(rules: &mut [ServiceAffinity], name: impl Fn(&str) -> Option<String>) {
    for rule in rules.iter_mut().filter(|rule| !rule.is_own()) {
        if let Some(full) = name(&rule.service) {
            rule.service = full;
        }
    }
}
