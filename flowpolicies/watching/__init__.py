"""What a run does at the moment, from the files in its folder, without changing them."""
