"""For operators, in every service: health, dead letters, consistency audits."""
