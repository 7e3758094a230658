//! What goes wrong in a landscape, told to the real binary: processes that fall silent or die, packets that are dropped,
//! clocks that jump, crowds that come at once, watchers that stop reading.

mod clock;
mod crowd;
mod doubt;
mod fleet;
mod network;
mod shop;
mod silence;
mod stalled;
mod watcher;
