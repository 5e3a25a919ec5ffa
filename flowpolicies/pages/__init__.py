"""Self-contained HTML pages, made of sections and blocks: what reports and `data check --html` share."""
