"""What every service offers its operators: health, dead letters, consistency audits."""
