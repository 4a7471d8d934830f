mod awkward;
mod exactly_once;
mod simulation;
mod world;
