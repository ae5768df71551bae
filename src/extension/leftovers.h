/* SPDX-License-Identifier: PostgreSQL */
/*
 * leftovers.h
 *	  Runners that an earlier dispatcher of this database left behind.
 *
 * There should be none: a runner ends with its dispatcher.  But one that was
 * stopped, or hangs in the kernel, could not notice, and what it runs would
 * work beside the attempt that repeats it.
 */
#ifndef BC_EXTENSION_LEFTOVERS_H
#define BC_EXTENSION_LEFTOVERS_H

/*
 * Kills them, and waits a moment until they are gone.  Only what is proven to
 * be one of ours: our program, our user, our database on its command line, and
 * not a child of this process.  A pid says nothing.
 */
extern void bc_leftovers_kill(void);

#endif							/* BC_EXTENSION_LEFTOVERS_H */
