"""Alerts: what of the events of a fixed catalogue an administrator is told, how often, and by which way.

`catalogue` is what there is; `thresholds` decides what is worth raising; `service` counts in the database, where a raise is made once for all
replicas, together with its deliveries; `sending` carries these out (`mail`, `webhook`). What is told never runs a program.
"""
