"""Rewards of trained language models: reward models, classifiers, process rewards, likelihoods, ensembles."""
