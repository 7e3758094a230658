//! Which of several endpoints to ask. Pure: no clock, no tokio, no randomness of its own.
//!
//! A [`Table`] holds the endpoints that can be asked now, in an order and with weights that stand until something changes;
//! picking from it takes no lock and allocates nothing. What changes with every call is in each endpoint's [`Gauge`].

mod gauge;
mod ring;
mod table;
mod xxh64;

pub(crate) use gauge::{Gauge, Gauged};
pub(crate) use table::{Method, Table};
pub(crate) use xxh64::hash;

/// The `most` items of the highest rank for this caller, in their own order: every caller has a subset of its own, the
/// same each time, and an item that comes or goes changes few of them. After Thaler and Ravishankar, "A Name-Based
/// Mapping Scheme for Rendezvous" (1996).
pub(crate) fn subset<T>(items: Vec<T>, most: usize, caller: u64, key: impl Fn(&T) -> u64) -> Vec<T> {
    if most == 0 || items.len() <= most {
        return items;
    }
    let mut ranked: Vec<(usize, u64)> =
        items.iter().enumerate().map(|(index, item)| (index, ring::mix(key(item) ^ caller))).collect();
    ranked.sort_unstable_by_key(|(index, rank)| (std::cmp::Reverse(*rank), *index));
    ranked.truncate(most);
    let mut chosen: Vec<usize> = ranked.into_iter().map(|(index, _)| index).collect();
    chosen.sort_unstable();
    let mut index = 0;
    let mut items = items;
    items.retain(|_| {
        let is_chosen = chosen.binary_search(&index).is_ok();
        index += 1;
        is_chosen
    });
    items
}

#[cfg(test)]
mod tests;
