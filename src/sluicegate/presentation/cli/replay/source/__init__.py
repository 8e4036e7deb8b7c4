"""Where the requests of a replay come from: files and archives, told apart, merged and put in order of time."""
