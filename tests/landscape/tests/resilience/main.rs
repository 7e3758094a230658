//! What keeps calls going: breakers, retries, hedging, limits, with nothing configured and with policies that change live.

mod edge;
mod faults;
mod handover;
mod operator;
mod policies;
mod pump;
mod reports;
