"""Base of schedules: wrappers that multiply the learning rate by a factor."""

from abc import abstractmethod
from functools import cached_property

from numbanet.device import device
from numbanet.optimizers.base import ParamLayout
from numbanet.optimizers.wrapper import AbstractWrapper


class AbstractSchedule(AbstractWrapper):
    """The learning rate is that of the nested optimizer, before any factor.

    Schedules nest, and their factors multiply. A step that is skipped does not count.
    """

    own_hyperparams: tuple[float, ...] = ()  # numbers that the factor is made of
    largest_factor = 1.0

    @property
    @abstractmethod
    def factor(self):
        """Device function (n_done, numbers): the factor for the step after n_done steps.

        n_done is an int32, and numbers are own_hyperparams.
        """

    def hyperparams(self) -> tuple[float, ...]:
        return *self.nested.hyperparams(), *self.own_hyperparams

    @cached_property
    def schedule(self):
        nested, factor, rates = self.nested.schedule, self.factor, (*self.rates, *self.decays)
        n_rates, first = len(rates), self.nested.n_hyperparams
        last = first + len(self.own_hyperparams)

        @device
        def schedule(t, hyperparams, scalars):
            nested(t, hyperparams, scalars)
            value = factor(t - 1, hyperparams[first:last])
            for k in range(n_rates):
                scalars[rates[k]] *= value

        return schedule

    @property
    def is_tame(self):
        return self.nested.is_tame and self.largest_factor <= 1

    def moves(self, layout: ParamLayout):
        return self.nested.moves(layout)
