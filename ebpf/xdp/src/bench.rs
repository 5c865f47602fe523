//! What is measured beside the balancer, and how: a prologue that restores the packet.

#![no_std]
#![no_main]

use ballast_xdp as _;
