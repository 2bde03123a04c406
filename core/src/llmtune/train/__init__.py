"""What every trainer backend needs: run folders, checkpoints, curves, interruption."""
