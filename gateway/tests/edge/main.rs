//! The edge as the outside sees it: real sockets, a real service behind, a registry and a contract store that the test
//! holds in its hands.

#[cfg(test)]
mod authority;
#[cfg(test)]
mod callers;
#[cfg(test)]
mod client;
#[cfg(test)]
mod connect;
#[cfg(test)]
mod desync;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod health;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod landscape;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod rollout;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod script;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod steering;
#[cfg(test)]
mod stopped;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod talk;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod web;
