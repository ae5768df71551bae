/* SPDX-License-Identifier: PostgreSQL */
/*
 * command_line.h
 *	  The command of an order with its placeholders filled in.  Pure.
 *
 * An element of the command that is exactly "{prompt}", "{model}", "{mode}" or
 * "{session}" stands for a value of the order.  Without a value the element
 * goes, and so does an option directly before it: ["--model", "{model}"].
 *
 * A value that begins with "-" could be taken for an option: a prompt gets a
 * blank in front, any other such value counts as none.  So does a prompt that
 * is too long for an argument.
 */
#ifndef BC_RUNNER_COMMAND_LINE_H
#define BC_RUNNER_COMMAND_LINE_H

#include <jansson.h>
#include <stdbool.h>

/* A new array, or NULL when the order has no command. */
extern json_t *bc_command_line(const json_t *order);

/* Is the prompt in it?  Else it is to be given in another way. */
extern bool bc_command_has_prompt(const json_t *order);

/* Does the command say "OPTION VALUE" or "OPTION=VALUE"? */
extern bool bc_command_has_option(const json_t *order, const char *option, const char *value);

#endif							/* BC_RUNNER_COMMAND_LINE_H */
