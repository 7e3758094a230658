//! The rules of the house, as tests. Each module is one kind of rule; a rule that the code has outgrown is changed here,
//! in the commit that shows why.

#[cfg(test)]
mod access;
#[cfg(test)]
mod arrows;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod tree;
