"""Groups of commands that suggest the closest where one is mistyped."""

import click

from radtransfer.errors import closest_names


class Group(click.Group):
    """A group that names the commands closest to an unknown one, or all of them."""

    def resolve_command(self, ctx: click.Context, args: list[str]):
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(f"No command {args[0]!r}. {closest_names(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)
