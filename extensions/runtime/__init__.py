"""What every process needs: settings, pauses between tries, and the interruptions of a greenlet."""
