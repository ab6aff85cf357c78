"""The commands: what they take, read, write and say. Floors are imported only when a command needs them."""
