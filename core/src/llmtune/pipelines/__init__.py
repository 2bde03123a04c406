"""The main job of each command, one readable file each."""
