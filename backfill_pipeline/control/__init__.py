"""What an operator asks for: one service over the Dagster instance, with the command and HTTP as thin skins."""
