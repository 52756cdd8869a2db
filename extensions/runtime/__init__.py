"""What every process needs: settings, backoff, interruptions."""
