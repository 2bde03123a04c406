"""What every engine needs: chat sessions and result files."""
