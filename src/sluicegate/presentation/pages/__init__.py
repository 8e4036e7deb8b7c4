"""What the pages have in common: how they look, and the library that draws their charts."""
