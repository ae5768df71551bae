/* SPDX-License-Identifier: PostgreSQL */
/*
 * replay_main.c
 *	  Gives the files named by its arguments to a fuzz target, one by one.
 */
#include "fuzz.h"

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
	{
		FILE	   *file = fopen(argv[i], "rb");
		uint8_t    *data = malloc(1 << 20);
		size_t		size;

		if (file == NULL || data == NULL)
		{
			perror(argv[i]);
			return 1;
		}
		size = fread(data, 1, 1 << 20, file);
		fclose(file);

		/* of its exact size, so that a read behind its end is noticed */
		data = realloc(data, size ? size : 1);
		(void) LLVMFuzzerTestOneInput(data, size);
		free(data);
	}
	printf("ok - %s: %d files\n", argv[0], argc - 1);
	return 0;
}
