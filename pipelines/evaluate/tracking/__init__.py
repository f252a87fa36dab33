"""Evaluations and models in MLflow. The one place besides the registry that knows MLflow."""
