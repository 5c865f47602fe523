mod cases;
mod random;
mod world;
