//! What goes into a package, what is refused, and that the same gives the same; [`unpacked`] runs the real one.

mod app;
mod archive;
mod contents;
mod described;
mod portable;
mod unpacked;
