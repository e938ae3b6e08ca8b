"""What extends ZenML itself: the model deployer's flavor, the alerter's, and the stacks that a run can stand on."""
